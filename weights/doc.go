// Package weights reads the checkpoints that the models are loaded from:
// safetensors files, PyTorch zip archives, folders of shards with their index,
// and synthetic checkpoints that are computed rather than stored. It finds them
// by name (a file, a folder, a hub id in the local Hugging Face cache) and gives
// every tensor its canonical name, whatever the file calls it.
//
// It must not know what a model computes: the names and shapes that an
// architecture expects come in from outside, as Specs. It must not write
// anything, run anything that a file asks for, or reach the network.
package weights
