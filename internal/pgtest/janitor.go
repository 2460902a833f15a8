package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// janitor is a shell that outlives us, whatever kills us: it ends the server
// and removes its folder when the pipe to it closes without a word.
type janitor struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

const janitorScript = `trap '' HUP INT QUIT TERM
pid=0
while read -r word value; do
	case $word in
	watch) pid=$value ;;
	dismiss) exit 0 ;;
	esac
done
if [ "$pid" != 0 ]; then
	kill -QUIT "$pid"
	i=0
	while kill -0 "$pid" && [ $i -lt 100 ]; do
		i=$((i+1))
		sleep 0.1
	done
fi
rm -rf "$1"
`

func startJanitor(ctx context.Context, dir string) (*janitor, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-c", janitorScript, "lockkeeper-pgtest-janitor", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the janitor: %w", err)
	}
	return &janitor{cmd: cmd, pipe: pipe}, nil
}

// watch names the process to end; 0 is none.
func (j *janitor) watch(pid int) {
	_, _ = fmt.Fprintf(j.pipe, "watch %d\n", pid) // a dead janitor is found out by dismiss
}

func (j *janitor) dismiss() error {
	_, err := io.WriteString(j.pipe, "dismiss\n")
	if err = errors.Join(err, j.pipe.Close(), j.cmd.Wait()); err != nil {
		return fmt.Errorf("dismiss the janitor: %w", err)
	}
	return nil
}
