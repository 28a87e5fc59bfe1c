// Package direct calls C functions without telling Go's scheduler, on the goroutine's own stack.
//
// A call through cgo takes some forty nanoseconds, and its locked instructions keep the processor from beginning the next
// look-up while this one waits for memory, which costs several times as much. A direct call takes a few. In exchange the
// function must be fit for it:
//
//   - It returns within a microsecond or so. Until then the goroutine can not be stopped: a garbage collection that begins
//     waits for it, and so do the other goroutines of its processor (P). Hence no locks and no system calls.
//   - It uses less than 4 KiB of stack, and calls nothing that the dynamic linker has yet to look for.
//   - It never calls Go.
//
// What is relied upon is what Go says of assembly: its calling convention (ABI0) stays, and no stack moves and no
// collection looks at it while assembly runs. Signals have a stack of their own, and where they meet code that Go has no
// tables for, the runtime preempts nothing and profiles it as external code, as it does with all C. Nothing of the
// runtime's is called, read or linked to by name. A memory fault in the function ends the program, as it does in a call
// through cgo, but the trace does not show the callers.
//
// It is a package of its own because one that uses cgo can have no assembly. The build tag opendiskmap_cgo_only goes
// without it.
package direct
