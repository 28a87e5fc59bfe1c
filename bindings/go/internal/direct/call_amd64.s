//go:build !opendiskmap_cgo_only

#include "funcdata.h"
#include "textflag.h"

#define STACK 4096 // What look-ups call needs a fifth of it, or a third if nobody optimized it.

// func Call(function, context, data unsafe.Pointer, size int) unsafe.Pointer
//
// The frame is the function's stack: Go's prologue has seen to it that there is room. For the call the stack pointer goes to its
// top, by an instruction that keeps Go's tables true, and to a multiple of 16. C gives BX back as it was.
TEXT ·Call(SB), 0, $4096-40
	NO_LOCAL_POINTERS
	MOVQ function+0(FP), AX
	MOVQ context+8(FP), DI
	MOVQ data+16(FP), SI
	MOVQ size+24(FP), DX
	ADJSP $-STACK
	MOVQ SP, BX
	ANDQ $~15, SP
	CALL AX
	MOVQ BX, SP
	ADJSP $STACK
	MOVQ AX, ret+32(FP)
	RET
