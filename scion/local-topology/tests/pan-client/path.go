package main

import (
	"sync"

	"github.com/netsec-ethz/scion-apps/pkg/pan"
)

// selector is pan's own, and counts how often it has chosen another path.
type selector struct {
	*pan.DefaultSelector

	mutex   sync.Mutex
	current pan.PathFingerprint
	changed int
}

func newSelector() *selector { return &selector{DefaultSelector: pan.NewDefaultSelector()} }

// Path implements pan.Selector.
func (s *selector) Path() *pan.Path {
	path := s.DefaultSelector.Path()
	if path == nil {
		return nil
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.current != "" && s.current != path.Fingerprint {
		s.changed++
	}
	s.current = path.Fingerprint
	return path
}

func (s *selector) changes() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.changed
}
