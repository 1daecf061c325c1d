package monitor

import (
	"os"

	"golang.org/x/sys/windows"
)

// ControlSequences makes a Windows console obey control sequences, and reports whether that succeeded.
func ControlSequences(terminal *os.File) bool {
	var mode uint32
	console := windows.Handle(terminal.Fd())
	return windows.GetConsoleMode(console, &mode) == nil &&
		windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
