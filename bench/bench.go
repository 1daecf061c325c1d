// Package bench measures the program: its throughput, and how far its embeddings are from those of the models' original
// PyTorch code. No package may import it; it may import every package.
package bench
