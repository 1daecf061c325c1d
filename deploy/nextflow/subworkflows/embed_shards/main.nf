// Embeds files in shards and joins the shards. It does not split the files: each shard gets all of them and embeds only
// its part.

include { EMBED_SHARD } from '../../modules/shard/main'
include { EMBED_MERGE } from '../../modules/merge/main'

workflow EMBED_SHARDS {
    take:
    ch_inputs // channel: [ val(meta), [ inputs ] ]
    shards    // integer: the number of shards

    main:
    ch_shards = ch_inputs.flatMap { meta, inputs ->
        (1..shards).collect { shard -> [meta, inputs, shard, shards] }
    }
    EMBED_SHARD(ch_shards)
    EMBED_MERGE(EMBED_SHARD.out.shard.groupTuple(size: shards))

    emit:
    embeddings = EMBED_MERGE.out.embeddings // channel: [ val(meta), folder ]
}
