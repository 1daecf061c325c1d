process EMBED_SHARD {
    tag "${meta.id} ${shard}/${shards}"
    label 'process_high'
    label 'process_gpu'
    // Exit status 75 means that embed was interrupted, and above 128 that it was killed, for example for lack of
    // memory. After any other failure a retry would fail, too.
    errorStrategy { task.exitStatus == 75 || task.exitStatus > 128 ? 'retry' : 'finish' }
    maxRetries 3

    container "${params.embed_container ?: 'seqembed:latest'}"

    input:
    tuple val(meta), path(inputs, stageAs: 'inputs/*'), val(shard), val(shards)

    output:
    tuple val(meta), path("shard-${shard}"), emit: shard
    tuple val("${task.process}"), val('embed'), eval("embed version | cut -d ' ' -f 2"), emit: versions_embed, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    """
    embed \\
        --no-progress \\
        --threads ${task.cpus} \\
        --shard ${shard}/${shards} \\
        ${args} \\
        -o shard-${shard} \\
        inputs
    """

    stub:
    """
    mkdir shard-${shard}
    touch shard-${shard}/manifest.jsonl
    """
}
