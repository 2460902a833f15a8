package pgquery

/*
#include <pthread.h>

// What a thread gets whose creator asks for nothing: Go's runtime makes the
// threads that call C so.
static size_t thread_stack_bytes(void) {
	pthread_attr_t attr;
	size_t size = 0;
	if (pthread_attr_init(&attr) != 0)
		return 0;
	pthread_attr_getstacksize(&attr, &size);
	pthread_attr_destroy(&attr);
	return size;
}
*/
import "C"

import "sync"

// levelBytes is what a level of a text's tree is given of the stack: twice of
// what it takes at most.
const levelBytes = 1 << 10

// levelsAllowed returns how deep a text's tree may be where this process runs.
// A thread has 8 MB of stack with glibc, or as much as RLIMIT_STACK says; with
// musl it has 128 kB, on macOS 512 kB.
var levelsAllowed = sync.OnceValue(func() int {
	return min(maxNesting, int(C.thread_stack_bytes())/levelBytes)
})
