package switchd

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/queue"
)

// Bounds of the answers about the queue.
const (
	defaultPage = 100
	maxPage     = 1000
	maxHeaders  = 64 << 10
)

// controlQueue adds the queue to the control API:
//
//	GET    /v1/queue?skip=&limit=   {"server", "total", "entries": [...]}: entries that this switch owns, the oldest first
//	GET    /v1/queue/{id}           one entry, with the header of its message in "headers"
//	POST   /v1/queue/{id}/retry     it is tried now
//	POST   /v1/queue/retry          all are; {"retried": how many}
//	DELETE /v1/queue/{id}           it is dropped, without a report to its sender; 409 while it is being tried
//
// 404: this switch has no such entry; another one may have it.
func (s *mailSwitch) controlQueue() {
	if s.env.Control == nil {
		return
	}
	s.env.Control.HandleFunc("GET /v1/queue", s.queueList)
	s.env.Control.HandleFunc("GET /v1/queue/{id}", s.queueShow)
	s.env.Control.HandleFunc("POST /v1/queue/retry", func(w http.ResponseWriter, _ *http.Request) {
		n := s.queue.RetryAll()
		s.env.Log.Info("an operator has all entries tried", "event", "queue_retry", "entries", n)
		kit.WriteJSON(w, http.StatusOK, map[string]int{"retried": n})
	})
	s.env.Control.HandleFunc("POST /v1/queue/{id}/retry", func(w http.ResponseWriter, r *http.Request) {
		s.queueDone(w, r, "queue_retry", s.queue.Retry(r.PathValue("id")))
	})
	s.env.Control.HandleFunc("DELETE /v1/queue/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.queueDone(w, r, "queue_delete", s.queue.Delete(r.PathValue("id")))
	})
}

func (s *mailSwitch) queueList(w http.ResponseWriter, r *http.Request) {
	skip, limit := 0, defaultPage
	for _, x := range []struct {
		name string
		to   *int
	}{{"skip", &skip}, {"limit", &limit}} {
		if text := r.FormValue(x.name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				kit.WriteError(w, http.StatusBadRequest, errors.New(x.name+" is a number from 0"))
				return
			}
			*x.to = n
		}
	}
	entries, err := s.queue.List(skip, min(limit, maxPage))
	if err != nil {
		s.queueFailed(w, err)
		return
	}
	if entries == nil {
		entries = []queue.Info{}
	}
	kit.WriteJSON(w, http.StatusOK, map[string]any{"server": s.env.Server, "total": s.queue.Len(), "entries": entries})
}

func (s *mailSwitch) queueShow(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	info, err := s.queue.Get(id)
	if err != nil {
		s.queueFailed(w, err)
		return
	}
	_, content, err := s.queue.Open(id)
	if err != nil {
		s.queueFailed(w, err)
		return
	}
	defer content.Close()
	buf := make([]byte, min(content.Size(), maxHeaders))
	n, err := content.ReadAt(buf, 0)
	if n < len(buf) && err != nil {
		s.queueFailed(w, err)
		return
	}
	head, _, _ := strings.Cut(string(buf[:n]), "\r\n\r\n")
	kit.WriteJSON(w, http.StatusOK, struct {
		queue.Info
		Headers string `json:"headers"`
	}{info, head})
}

func (s *mailSwitch) queueDone(w http.ResponseWriter, r *http.Request, event string, err error) {
	if err != nil {
		s.queueFailed(w, err)
		return
	}
	s.env.Log.Info("an operator changed an entry", "event", event, "entry", r.PathValue("id"))
	kit.WriteJSON(w, http.StatusOK, map[string]string{"id": r.PathValue("id")})
}

func (s *mailSwitch) queueFailed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, queue.ErrNoEntry):
		kit.WriteError(w, http.StatusNotFound, err)
	case errors.Is(err, queue.ErrActive):
		kit.WriteError(w, http.StatusConflict, err)
	default:
		s.env.Log.Error("the queue cannot be read", "event", "queue_unreadable", "error", err)
		kit.WriteError(w, http.StatusInternalServerError, err)
	}
}
