package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"seqembed/internal/store"
	"seqembed/kernels"
	"seqembed/transformer"
)

const completionUsage = `embed completion prints a script that completes the command line of embed in a shell: flags, the words that a
flag takes, names of models, subcommands and files.

Usage:
  embed completion bash|zsh|fish

Examples:
  source <(embed completion bash)
  embed completion zsh > ~/.zfunc/_embed        a folder of $fpath
  embed completion fish > ~/.config/fish/completions/embed.fish
`

// shells lists the shells for which there is a completion script.
func shells() []string { return []string{"bash", "zsh", "fish"} }

// completion is the command "embed completion".
func completion(_ context.Context, _ machine, args, environ []string, w, _ io.Writer) (code int, err error) {
	flags := pflag.NewFlagSet("embed completion", pflag.ContinueOnError)
	rest, helped, err := parseSubcommand(flags, completionUsage, 1, args, environ, w)
	switch {
	case err != nil || helped:
		return exitCode(err, 0, 0), err
	case len(rest) == 0 || !slices.Contains(shells(), rest[0]):
		return exitUsage, usagef("embed completion takes the name of a shell: %s", strings.Join(shells(), ", "))
	}
	_, err = io.WriteString(w, completionScript(rest[0]))
	return exitCode(err, 0, 0), err
}

// completed is a flag of embed, with the words or paths that a shell offers as its value.
type completed struct {
	*pflag.Flag
	values  []string // words that the shell offers; nil if there are none
	isFiles bool     // whether the value of the flag is the path of a file or folder
}

// takesValue reports whether the flag needs a value.
func (c completed) takesValue() bool { return c.NoOptDefVal == "" }

// completedFlags lists the flags of embed.
func completedFlags() (list []completed) {
	s := &settings{}
	groups := declare(s, transformer.Families)
	values := map[string][]string{"log-format": {"text", "json"}, "gpus": {"all", "none"}, "preset": {virNucPro.name},
		"include": slices.Sorted(maps.Keys(extractPoolings))}
	for _, t := range []kernels.DType{kernels.Auto, kernels.FP32, kernels.BF16, kernels.FP16} {
		values["dtype"] = append(values["dtype"], t.String())
	}
	for _, format := range store.Formats() {
		values["format"] = append(values["format"], string(format))
	}
	for _, pooling := range store.Poolings() {
		values["pool"] = append(values["pool"], string(pooling))
	}
	for _, c := range s.choices() {
		values[c.name] = c.values
	}
	for _, f := range s.families {
		values[f.flag("model")] = f.ModelNames()
	}
	for _, g := range groups {
		g.flags.VisitAll(func(f *pflag.Flag) {
			kind, _ := pflag.UnquoteUsage(f)
			list = append(list, completed{f, values[f.Name], strings.HasPrefix(kind, "FILE") || kind == "DIR"})
		})
	}
	return list
}

// completionScript returns the completion script for a shell.
func completionScript(shell string) string {
	switch flags := completedFlags(); shell {
	case "bash":
		return bashScript(flags)
	case "zsh":
		return zshScript(flags)
	default:
		return fishScript(flags)
	}
}

// bashScript returns the completion script for bash. The script works without the package bash-completion.
func bashScript(flags []completed) string {
	var names []string
	var cases strings.Builder
	for _, f := range flags {
		names = append(names, "--"+f.Name)
		pattern := "--" + f.Name + "|-" + f.Name
		if f.Shorthand != "" {
			pattern += "|-" + f.Shorthand
		}
		switch {
		case !f.takesValue():
		case len(f.values) > 0:
			fmt.Fprintf(&cases, "\t%s) COMPREPLY=($(compgen -W '%s' -- \"$word\")); return ;;\n", pattern, strings.Join(f.values, " "))
		case f.isFiles:
			fmt.Fprintf(&cases, "\t%s) local IFS=$'\\n'; COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n", pattern)
		default:
			fmt.Fprintf(&cases, "\t%s) return ;;\n", pattern)
		}
	}
	return fmt.Sprintf(`# Completion of embed for bash.
_embed() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	if [ "$word" = = ]; then # readline cuts --flag=value into three words
		word=
	elif [ "$before" = = ]; then
		before=${COMP_WORDS[COMP_CWORD-2]}
	fi
	case $before in
%s	esac
	case $word in
	-*) COMPREPLY=($(compgen -W '%s' -- "$word")) ;;
	*)
		[ "$COMP_CWORD" != 1 ] || COMPREPLY=($(compgen -W '%s' -- "$word"))
		local IFS=$'\n' # names of files may have blanks
		COMPREPLY+=($(compgen -f -- "$word"))
		;;
	esac
}
complete -o filenames -F _embed embed
`, cases.String(), strings.Join(names, " "), strings.Join(subcommandNames(), " "))
}

// zshScript returns the completion script for zsh, which loads it from a file named _embed.
func zshScript(flags []completed) string {
	quote := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`).Replace
	var lines strings.Builder
	for _, f := range flags {
		kind, text := pflag.UnquoteUsage(f.Flag)
		action := ""
		switch {
		case !f.takesValue():
		case len(f.values) > 0:
			action = fmt.Sprintf(":%s:(%s)", quote(kind), strings.Join(f.values, " "))
		case f.isFiles:
			action = fmt.Sprintf(":%s:_files", quote(kind))
		default:
			action = fmt.Sprintf(":%s: ", quote(kind))
		}
		if f.Shorthand != "" {
			fmt.Fprintf(&lines, "\t'*-%s[%s]%s' \\\n", f.Shorthand, quote(text), action)
		}
		fmt.Fprintf(&lines, "\t'*--%s[%s]%s' \\\n", f.Name, quote(text), action)
	}
	return fmt.Sprintf(`#compdef embed
# Completion of embed for zsh.
_embed_first() {
	_alternative 'subcommands:subcommand:(%s)' 'inputs:input:_files'
}
_arguments \
%s	'1: :_embed_first' \
	'*:input:_files'
`, strings.Join(subcommandNames(), " "), lines.String())
}

// fishScript returns the completion script for fish.
func fishScript(flags []completed) string {
	quote := strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace
	var lines strings.Builder
	fmt.Fprintf(&lines, "# Completion of embed for fish.\ncomplete -c embed -n __fish_use_subcommand -a '%s'\n", strings.Join(subcommandNames(), " "))
	for _, f := range flags {
		_, text := pflag.UnquoteUsage(f.Flag)
		fmt.Fprintf(&lines, "complete -c embed -l %s -d '%s'", f.Name, quote(text))
		if f.Shorthand != "" {
			fmt.Fprintf(&lines, " -s %s", f.Shorthand)
		}
		switch {
		case !f.takesValue():
		case len(f.values) > 0:
			fmt.Fprintf(&lines, " -x -a '%s'", strings.Join(f.values, " "))
		case f.isFiles:
			lines.WriteString(" -r -F")
		default:
			lines.WriteString(" -x")
		}
		lines.WriteString("\n")
	}
	return lines.String()
}
