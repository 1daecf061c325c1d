// Package weights reads checkpoints: safetensors files, PyTorch zip archives, folders of shards with their index, and
// synthetic checkpoints that are computed rather than stored. It finds them in folders and in the local Hugging Face
// cache.
//
// It must not know any model: the names and shapes of tensors that one expects, and how they are stored, come in from
// outside, as Specs and as the function that Rename takes. It must not write anything, run anything that a file asks
// for, or reach the network.
package weights
