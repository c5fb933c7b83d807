// Package private reads and replaces files that are for their owner alone.
package private

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Read reads a regular file of at most so many bytes that only its owner may
// read or write.
func Read(name string, most int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows":
		return nil, fmt.Errorf("others can reach it (mode %#o); chmod 600 it", info.Mode().Perm())
	case info.Size() > most:
		return nil, errors.New("it is too large")
	}
	return io.ReadAll(io.LimitReader(file, most))
}

// Replace writes a file that only its owner can read. A crash leaves the old
// one or the new one.
func Replace(name string, data []byte) (err error) {
	// CreateTemp makes the file with mode 0600.
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}
