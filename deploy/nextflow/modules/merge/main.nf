process EMBED_MERGE {
    tag "${meta.id}"
    label 'process_single'

    container "${params.embed_container ?: 'seqembed:latest'}"

    input:
    tuple val(meta), path(shards)

    output:
    tuple val(meta), path("${prefix}"), emit: embeddings
    tuple val("${task.process}"), val('embed'), eval("embed version | cut -d ' ' -f 2"), emit: versions_embed, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    embed merge \\
        ${args} \\
        -o ${prefix} \\
        ${shards}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}/manifest.jsonl
    """
}
