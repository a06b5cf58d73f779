package cluster

import "runtime"

// lockThread keeps the goroutine on its thread: the kernel sends the "parent has died" signal when the thread
// that started the child ends.
func lockThread() { runtime.LockOSThread() }
