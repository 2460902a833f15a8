package journal

import (
	"errors"
	"fmt"
	"time"
)

// Config says where the journal is and what it may cost: the key journal of
// lockkeeper.yaml. Zero means the default.
type Config struct {
	Path            string        `yaml:"path"`             // the database file; its folder must exist
	Retention       time.Duration `yaml:"retention"`        // older entries are removed
	MaxBytes        int64         `yaml:"max_bytes"`        // of the database file; the oldest statements make room
	QueueEntries    int           `yaml:"queue_entries"`    // statements waiting to be written
	ReservedEntries int           `yaml:"reserved_entries"` // refusals and actions waiting to be written

	// Joins says that another process writes to the same file and has
	// transactions open: they are not lost until Lose says so.
	Joins bool `yaml:"-"`

	// Now is the clock; time.Now where it is nil.
	Now func() time.Time `yaml:"-"`
}

// The limits of the journal that are not configured.
const (
	submitWait      = 100 * time.Millisecond // a full queue delays a statement for this long
	batchEntries    = 512                    // committed together
	gatherTime      = 20 * time.Millisecond  // how long the first entry of a batch waits for others
	lookTime        = 5 * time.Millisecond   // between two looks for those others
	retryWait       = 250 * time.Millisecond // between attempts to write while the disk refuses
	flushTime       = 5 * time.Second        // for what is queued, when the journal is closed
	checkTime       = 2 * time.Second        // for looking over a database that is opened
	pruneInterval   = 10 * time.Minute       // between removals of what is too old
	pruneAgain      = 200 * time.Millisecond // where more was too old than one transaction removes
	pruneEntries    = 5000                   // removed in one transaction
	tablesInEntry   = 64                     // of longer lists the rest is counted
	textBytes       = 1024                   // longer texts are cut
	defaultLimit    = 1000                   // entries that Query returns where the filter does not say
	maxLimit        = 100_000                // entries that Query returns at most
	pageBytes       = 4096                   // of the database file
	minMaxBytes     = 64 * pageBytes         // less holds no useful journal
	batchBytes      = 2 << 20                // in the file, at most: with less room the oldest statements go
	filePermissions = 0o600
)

// Default returns the configuration in force where nothing is set. Path is
// left to the caller.
func Default() Config {
	return Config{Retention: 90 * 24 * time.Hour, MaxBytes: 4 << 30, QueueEntries: 8192, ReservedEntries: 4096}
}

// Validate says what in the configuration cannot be.
func (c *Config) Validate() error {
	var errs []error
	if c.Retention < 0 {
		errs = append(errs, fmt.Errorf("retention: %s is negative", c.Retention))
	}
	if c.MaxBytes < 0 || c.MaxBytes > 0 && c.MaxBytes < minMaxBytes {
		errs = append(errs, fmt.Errorf("max_bytes: %d is less than %d", c.MaxBytes, int64(minMaxBytes)))
	}
	if c.QueueEntries < 0 {
		errs = append(errs, fmt.Errorf("queue_entries: %d is negative", c.QueueEntries))
	}
	if c.ReservedEntries < 0 {
		errs = append(errs, fmt.Errorf("reserved_entries: %d is negative", c.ReservedEntries))
	}
	return errors.Join(errs...)
}

// WithDefaults returns c with the default in place of every zero.
func (c Config) WithDefaults() Config {
	d := Default()
	if c.Retention == 0 {
		c.Retention = d.Retention
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = d.MaxBytes
	}
	if c.QueueEntries == 0 {
		c.QueueEntries = d.QueueEntries
	}
	if c.ReservedEntries == 0 {
		c.ReservedEntries = d.ReservedEntries
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	return c
}
