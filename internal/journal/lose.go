package journal

import (
	"context"
	"fmt"
)

// Lose is told that another process that wrote to the same file has ended, and
// the last of its session ids: what it left open is lost.
func (j *Journal) Lose(ctx context.Context, last uint64) error {
	j.dbMu.RLock()
	defer j.dbMu.RUnlock()
	if j.db == nil {
		return fmt.Errorf("journal: %w", errDamaged)
	}
	return j.db.lose(ctx, last)
}
