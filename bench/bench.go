// Package bench measures the engine: its throughput, and its parity with the models' original PyTorch code. No package
// may import it; it may import every package.
package bench
