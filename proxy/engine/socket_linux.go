package engine

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSegments is how many segments one write takes; IOV_MAX is 1024.
const maxSegments = 64

// receive reads what a socket has now; 0 is its end. The raw call is not
// announced to Go's scheduler: it never waits. Source: recv(2), MSG_DONTWAIT.
func receive(fd int32, buf []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return taken(n, errno), failure("read", errno)
		}
	}
}

// send writes segments as far as the socket takes them now and returns the
// rest; it changes the elements of segments.
func send(fd int32, segments [][]byte) (rest [][]byte, err error) {
	for len(segments) > 0 && err == nil {
		var n int
		if len(segments) == 1 {
			if n, err = sendOne(fd, segments[0]); n == len(segments[0]) { // as nearly always
				return nil, err
			}
		} else {
			n, err = sendSome(fd, segments[:min(len(segments), maxSegments)])
		}
		segments = cut(segments, n)
	}
	return segments, err
}

func sendOne(fd int32, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return taken(n, errno), failure("write", errno)
		}
	}
}

// sendSome writes several segments with one call.
func sendSome(fd int32, segments [][]byte) (int, error) {
	var vectors [maxSegments]unix.Iovec
	for i, b := range segments {
		vectors[i].Base = unsafe.SliceData(b)
		vectors[i].SetLen(len(b))
	}
	m := unix.Msghdr{Iov: &vectors[0]}
	m.SetIovlen(len(segments))
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return taken(n, errno), failure("write", errno)
		}
	}
}

// cut returns what is left of segments behind their first n bytes; it changes
// the slices of the one that is cut.
func cut(segments [][]byte, n int) [][]byte {
	for len(segments) > 0 && n >= len(segments[0]) {
		n -= len(segments[0])
		segments[0] = nil
		segments = segments[1:]
	}
	if n > 0 {
		segments[0] = segments[0][n:]
	}
	return segments
}

// taken is how many bytes a call has moved: none where it has failed.
func taken(n uintptr, errno syscall.Errno) int {
	if errno != 0 {
		return 0
	}
	return int(n) //nolint:gosec // no more than was asked for
}

func failure(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	if errno == unix.EAGAIN {
		return errNotNow
	}
	return os.NewSyscallError(call, errno)
}
