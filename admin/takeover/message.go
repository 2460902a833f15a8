// Package takeover hands a running lockkeeper's sockets and state folder to the one that replaces it, which then speaks for both.
//
// The running process, the predecessor, offers itself on a unix socket in its
// state folder. The successor says hello and receives the listening sockets and
// the lock of the state folder as descriptors; it begins to accept, says so, and
// only then does the predecessor stop. The connection stays: over it the
// successor, which alone decides from then on, reaches the sessions that the
// predecessor still has. Whoever loses the connection knows that the other has
// ended.
package takeover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"lockkeeper/admin/control"
	"lockkeeper/internal/journal"
	"lockkeeper/proxy"
)

// Version is that of the handshake and of what is said afterwards.
const Version = 1

// socketFile is the predecessor's socket in the state folder.
const socketFile = "takeover"

// The limits of a takeover.
const (
	HandoverTime = 30 * time.Second // from the first descriptor to "I accept"
	AnswerTime   = 5 * time.Second  // for the predecessor to hold what was decided

	acceptPause     = time.Second     // after a connection that could not be accepted
	helloTime       = 5 * time.Second // to say who one is
	listTime        = 2 * time.Second // for the predecessor to list its sessions
	maxMessageBytes = 256 << 10       // of the handshake
	maxDescriptors  = 200             // in a message; Linux takes 253
	maxCalls        = 16              // questions that the predecessor has not answered
)

// formats are what two processes that share a state folder have to agree on.
type formats struct {
	Takeover int `json:"takeover"`
	State    int `json:"state"`
	Journal  int `json:"journal"`
}

func ours() formats {
	return formats{Takeover: Version, State: control.StateVersion, Journal: journal.SchemaVersion}
}

// agree says in which way two programs cannot work together.
func (f formats) agree(running formats) error {
	for _, v := range []struct {
		what          string
		next, running int
	}{
		{"takeover protocol", f.Takeover, running.Takeover},
		{"state file's format", f.State, running.State},
		{"journal's schema", f.Journal, running.Journal},
	} {
		if v.next != v.running {
			return fmt.Errorf("the %s is version %d in this program and %d in the running one: stop that and start this", v.what, v.next, v.running)
		}
	}
	return nil
}

// hello is the successor's first message.
type hello struct {
	Formats formats `json:"formats"`
	Program string  `json:"program"` // its version, for the log
}

// welcome is the answer. The descriptors are the state folder's lock, the admin
// interface's socket and the listeners, in this order.
type welcome struct {
	Refused     string   `json:"refused,omitempty"`
	Formats     formats  `json:"formats"`
	Program     string   `json:"program"`
	Admin       string   `json:"admin"`        // as configured
	Listeners   []string `json:"listeners"`    // as configured
	Processes   string   `json:"processes"`    // the file of server processes
	LastSession uint64   `json:"last_session"` // larger than every id of the predecessor
}

// Terms are how the predecessor is to end: the successor's configuration is the
// newer one.
type Terms struct {
	Wait   time.Duration `json:"wait"`   // its sessions stay for this long
	Finish time.Duration `json:"finish"` // then transactions may finish for this long
}

// accept is what the successor says when it accepts clients. The answer,
// which is empty, says that the predecessor does so no more.
type accept struct {
	Terms Terms `json:"terms"`
}

// Estate is what is handed over.
type Estate struct {
	Lock        *os.File // locked, and so it stays as long as one process has it
	Admin       proxy.Listener
	Listeners   []proxy.Listener
	Processes   string
	LastSession uint64
}

// send writes one message with descriptors.
func send(c *net.UnixConn, v any, descriptors ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(body) > maxMessageBytes || len(descriptors) > maxDescriptors {
		return errors.New("there are too many listeners")
	}
	var rights []byte
	if len(descriptors) > 0 {
		rights = syscall.UnixRights(descriptors...)
	}
	message := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	n, _, err := c.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) {
		_, err = c.Write(message[n:]) // the descriptors went with the beginning
	}
	return err
}

// receive reads one message and its descriptors, which are the caller's unless
// there is an error.
func receive(c *net.UnixConn, v any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
			files = nil
		}
	}()
	var header [4]byte
	rights := make([]byte, syscall.CmsgSpace(4*maxDescriptors))
	n, rn, flags, _, err := c.ReadMsgUnix(header[:], rights) // the descriptors come with the first byte
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if files, err = received(rights[:rn]); err != nil {
		return files, err
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return files, errors.New("descriptors were lost; is the limit of open files reached?")
	}
	if _, err := io.ReadFull(c, header[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > maxMessageBytes {
		return files, errors.New("the message is too long")
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return files, err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return files, fmt.Errorf("decode: %w", err)
	}
	return files, nil
}

func received(rights []byte) ([]*os.File, error) {
	all, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	var files []*os.File
	for i := range all {
		fds, err := syscall.ParseUnixRights(&all[i])
		if err != nil {
			return files, fmt.Errorf("read descriptors: %w", err)
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handed over")) //nolint:gosec // descriptors are small
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // another process has it, too
	}
}
