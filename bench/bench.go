// Package bench holds what measures the engine: parity with the outputs of
// the models' own PyTorch code, and benchmarks of throughput. Nothing imports
// it; it may import everything.
package bench
