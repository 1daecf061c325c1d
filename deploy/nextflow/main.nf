#!/usr/bin/env nextflow
// Embeds files in shards and joins the shards:
//
//   nextflow run deploy/nextflow --inputs 'proteins/*.faa' --shards 8 --flags '--esm-model esm2-650m' --outdir out

include { EMBED_SHARDS } from './subworkflows/embed_shards/main'

workflow {
    ch_inputs = channel.fromPath(params.inputs, checkIfExists: true)
        .toSortedList()
        .map { inputs -> [[id: 'embeddings'], inputs] }
    EMBED_SHARDS(ch_inputs, params.shards as int)
}
