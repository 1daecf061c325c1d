// Package bench contains the measurements of the engine: parity with the outputs of the models' original PyTorch code,
// and throughput. No package may import it; it may import every package.
package bench
