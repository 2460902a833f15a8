package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lockkeeper/policy"
)

// StateVersion is the version of the state file's format, and of the desired
// state that one process tells another.
const StateVersion = 1

// maxStateBytes bounds the state file that is read.
const maxStateBytes = 16 << 20

// state is desired state as it is on disk.
type state struct {
	Version      int                  `json:"version"`
	Epoch        uint64               `json:"epoch"`   // of the last snapshot
	LastID       uint64               `json:"last_id"` // of a containment
	Containments []policy.Containment `json:"containments"`
}

// loadState reads the state file. A file that is not there is the first
// start; one that cannot be read is an error, for what it restricted would
// silently be allowed again.
func loadState(path string) (state, error) {
	s := state{Version: StateVersion}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil && info.Size() > maxStateBytes {
		err = fmt.Errorf("%d bytes are more than a state file has", info.Size())
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err == nil {
		err = s.decode(data)
	}
	if err != nil {
		return state{}, &Error{
			Kind: Failed,
			What: "read the state file " + path,
			Hint: "It says which restrictions are in force (read-only, freeze, pauses); lockkeeper does not start without knowing. " +
				"Repair it, or move it away to start with no restriction in force, then set again what is needed.",
			Err: err,
		}
	}
	return s, nil
}

// CheckState reports whether Open could read the state file.
func CheckState(path string) error {
	_, err := loadState(path)
	return err
}

func (s *state) decode(data []byte) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if s.Version != StateVersion {
		return fmt.Errorf("its format is version %d, this program knows %d", s.Version, StateVersion)
	}
	for i := range s.Containments {
		if err := knownKind(s.Containments[i].Kind); err != nil {
			return err
		}
	}
	return nil
}

// knownKind refuses what a newer program may have written: ignoring it would
// allow what it restricts.
func knownKind(k policy.ContainmentKind) error {
	switch k {
	case policy.ReadOnlyMode, policy.FreezeDDL, policy.Pause, policy.ObserveMode, policy.Disable:
		return nil
	}
	return fmt.Errorf("unknown kind of containment %q", k)
}

// save puts the state on disk: whoever reads the file finds the old state or
// the new one, whole, whenever the machine stops.
func (s *state) save(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	temp := path + ".new"
	if err := writeSynced(temp, append(data, '\n')); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("put the state file in place: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync the state folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync the state folder: %w", err)
	}
	return nil
}
