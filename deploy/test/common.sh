# Functions for the tests of deploy/slurm and deploy/snakemake, which source this file in bash. $folder is the test's
# temporary folder.

# say prints a line of the test's report, with the seconds since the start.
say() { printf '%4d s  %s\n' $SECONDS "$*"; }

# fail reports a failure and ends the test.
fail() {
    say "FAILED: $*" >&2
    exit 1
}

# await LIMIT TEXT COMMAND... runs a command ten times a second until it succeeds. After LIMIT seconds the test fails
# with TEXT.
await() {
    local end=$((SECONDS + $1)) text=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "waited in vain: $text"
        sleep 0.1
    done
}

# make_inputs writes DNA and proteins into $folder/in: small files, which a shard completes one after the other; a large
# file, which several shards divide among them; and a compressed file, which each of its shards reads as a whole.
make_inputs() {
    mkdir -p "$folder/in"
    fasta() { # LETTERS RECORDS LENGTH SEED
        awk -v letters="$1" -v records="$2" -v len="$3" -v seed="$4" 'BEGIN {
            srand(seed)
            for (r = 1; r <= records; r++) {
                print ">r" seed "_" r
                line = ""
                for (i = 0; i < len + r % 7; i++) line = line substr(letters, 1 + int(rand() * length(letters)), 1)
                print line
            }
        }'
    }
    for i in 1 2 3 4 5 6 7 8; do
        fasta ACGT 6 100 "1$i" > "$folder/in/a$i.fna"
        fasta ACDEFGHIKLMNPQRSTVWY 6 60 "2$i" > "$folder/in/b$i.faa"
        fasta ACDEFGHIKLMNPQRSTVWY 6 60 "3$i" > "$folder/in/c$i.faa"
    done
    fasta ACGT 40 100 4 > "$folder/in/large.fna"
    fasta ACDEFGHIKLMNPQRSTVWY 130 20 5 | gzip > "$folder/in/packed.faa.gz"
}

# hold N... waits until the process of each of these shards has committed an output. It then stops the process (SIGSTOP)
# and writes the process id to $folder/held.N. It ends when all of these shards are stopped. Before a process has
# committed an output, hold lets it run only between two checks, so that no shard completes unnoticed on a fast machine.
# The processes run $folder/embed; $shard_folders is the folder of the shards' outputs.
hold() {
    local left=" $* " p n
    while [ "$left" != " " ]; do
        for p in $(grep -lszxF -- "$folder/embed" /proc/[0-9]*/cmdline | cut -d / -f 3); do
            [ "/proc/$p/exe" -ef "$folder/embed" ] || continue
            n=$(tr '\0' '\n' < "/proc/$p/cmdline" | sed -n "s,^$shard_folders/,,p") || continue
            case $left in *" $n "*) ;; *) continue ;; esac
            kill -STOP "$p" || continue
            if grep -qs '"finished":"[1-9]' "$shard_folders/$n/manifest.jsonl"; then
                echo "$p" > "$folder/held.$n"
                left=${left/ $n / }
            else
                kill -CONT "$p"
            fi
        done
        sleep 0.05
    done 2> /dev/null
}

# await_held N waits until hold has stopped the process of shard N, and sets $pid to the id of the process.
await_held() {
    await 600 "shard $1 has committed an output" test -s "$folder/held.$1"
    pid=$(cat "$folder/held.$1")
}

# compare A B fails the test unless two folders have the same outputs, byte for byte. It ignores report.json and the
# content of manifest.jsonl.
compare() {
    diff <(cd "$1" && ls -A -I report.json) <(cd "$2" && ls -A -I report.json) || fail "$1 and $2 have different files"
    local name count=0
    for name in $(cd "$1" && ls -I report.json); do
        case $name in manifest.jsonl) continue ;; esac
        cmp "$1/$name" "$2/$name" || fail "$name differs"
        count=$((count + 1))
    done
    [ $count -gt 20 ] || fail "only $count outputs were compared"
    say "$count outputs are those of one run, byte for byte"
}
