package imapsession

// workers run sessions that have something to do. A few goroutines are kept between runs, because
// their stacks have grown to what a command needs; beyond those, each run gets a goroutine of its own,
// so that a session that waits (for the store, the directory, a slow client) holds up no other.
type workers struct {
	next chan *session
	idle chan struct{} // one token for each goroutine that may wait for more
	stop chan struct{}
}

func newWorkers(keep int) *workers {
	return &workers{next: make(chan *session), idle: make(chan struct{}, keep), stop: make(chan struct{})}
}

// run runs s soon. It does not wait.
func (w *workers) run(s *session) {
	select {
	case w.next <- s:
	default:
		go w.work(s)
	}
}

func (w *workers) work(s *session) {
	for {
		s.run()
		select {
		case w.idle <- struct{}{}:
		default:
			return
		}
		select {
		case s = <-w.next:
			<-w.idle
		case <-w.stop:
			return
		}
	}
}

func (w *workers) close() { close(w.stop) }
