package podlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Proof is what "counter verify" finds in the lines of one counter. Its words explain themselves there.
type Proof struct {
	Lines        int64 `json:"lines"`
	Lost         int64 `json:"lost"`
	Repeated     int64 `json:"repeated"`
	Broken       int64 `json:"broken"`
	Unlogged     int64 `json:"unlogged"`
	EpochFell    int64 `json:"epochFell"`
	Overlaps     int64 `json:"overlaps"`
	SharedEpochs int64 `json:"sharedEpochs"`
	SequenceFell int64 `json:"sequenceFell"`
}

// Add sums up.
func (p *Proof) Add(other Proof) {
	p.Lines += other.Lines
	p.Lost += other.Lost
	p.Repeated += other.Repeated
	p.Broken += other.Broken
	p.Unlogged += other.Unlogged
	p.EpochFell += other.EpochFell
	p.Overlaps += other.Overlaps
	p.SharedEpochs += other.SharedEpochs
	p.SequenceFell += other.SequenceFell
}

// Whole says whether every iteration was done once, by one pod at a time.
func (p *Proof) Whole() bool {
	return p.Lines > 0 && p.Lost+p.Repeated+p.Broken+p.EpochFell+p.Overlaps+p.SharedEpochs+p.SequenceFell == 0
}

// Verify lets the counter's own program prove what its lines say: those of one pod after those of the one before. The
// counter is the path of that program. The lines are kept in a directory, unless that is empty.
func Verify(ctx context.Context, counter string, all []*Chapter, directory string) (Proof, error) {
	var found Proof
	cmd := exec.CommandContext(ctx, counter, "verify", "--allow-unlogged")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return found, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return found, fmt.Errorf("starting %s (was it built?): %w", counter, err)
	}
	copied := copyLines(stdin, all, directory)
	// It answers 1 where the lines are not whole, which is for the caller to judge.
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return found, errors.Join(fmt.Errorf("%w: %s", err, stderr.String()), copied)
	}
	if copied != nil {
		return found, copied
	}
	if err := json.Unmarshal(stdout.Bytes(), &found); err != nil {
		return found, fmt.Errorf("its answer %q: %w", stdout.String(), err)
	}
	return found, nil
}

func copyLines(to io.WriteCloser, all []*Chapter, directory string) error {
	var err error
	for _, c := range all {
		for _, f := range c.files {
			err = errors.Join(err, copyFile(to, f, directory))
		}
	}
	return errors.Join(err, to.Close())
}

func copyFile(to io.Writer, f File, directory string) (err error) {
	if directory != "" {
		if err := os.MkdirAll(directory, 0o750); err != nil {
			return err
		}
		path := filepath.Join(directory, f.Pod+"."+f.UID)
		kept, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the names are Kubernetes'
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, kept.Close()) }()
		to = io.MultiWriter(to, kept)
	}
	return f.lines(func(line []byte) error {
		_, err := to.Write(append(line, '\n'))
		return err
	})
}
