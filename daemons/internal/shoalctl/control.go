package shoalctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// Bounds of one question to one server.
const (
	askWithin = 5 * time.Second
	maxAnswer = 64 << 20
)

// control speaks to the control APIs of servers, as operator.
type control struct{ client *http.Client }

// control makes a client of the control API; close ends its connections.
func (c *Config) control() (*control, error) {
	creds, err := c.credentials()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: creds.ClientTLS(pki.RoleVault, pki.RoleSwitch, pki.RoleBox, pki.RoleWebmail, pki.RoleProvision)}
	return &control{&http.Client{Transport: transport, Timeout: askWithin}}, nil
}

func (k *control) close() { k.client.CloseIdleConnections() }

// controlError is an answer of a server that is not a success.
type controlError struct {
	code int
	text string
}

func (e *controlError) Error() string { return e.text }

// notFound says whether a server answered that there is no such thing.
func notFound(err error) bool {
	var answer *controlError
	return errors.As(err, &answer) && answer.code == http.StatusNotFound
}

// call sends one request and decodes the answer into answer unless that is nil. An error that is no
// *controlError means that nobody answered.
func (k *control) call(ctx context.Context, method, address, path string, answer any) error {
	return k.send(ctx, method, address, path, nil, answer)
}

// send is call with a body, unless that is nil.
func (k *control) send(ctx context.Context, method, address, path string, body, answer any) error {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, text)
	if err != nil {
		return err
	}
	response, err := k.client.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) { // it repeats the request
			err = fmt.Errorf("%s: %w", address, failed.Err)
		}
		return err
	}
	defer response.Body.Close()
	from := json.NewDecoder(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode/100 != 2 {
		var told struct{ Error string }
		if err := from.Decode(&told); err != nil || told.Error == "" {
			told.Error = "it answers " + response.Status
		}
		return &controlError{response.StatusCode, printable(told.Error)}
	}
	if answer == nil {
		return nil
	}
	if err := from.Decode(answer); err != nil {
		return fmt.Errorf("its answer is not readable: %w", err)
	}
	return nil
}

// silence is a server that did not answer.
type silence struct {
	Server  string `json:"server"`
	Problem string `json:"problem"`
}

// each asks all servers at the same time and returns those that f failed for, in the order of the servers.
func (k *control) each(servers []dirclient.Server, f func(i int, address string) error) []silence {
	problems := make([]string, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			addresses := s.Addresses[dirclient.ServiceControl]
			if len(addresses) == 0 {
				problems[i] = "the directory lists no control address for it"
				return
			}
			if err := f(i, addresses[0]); err != nil {
				problems[i] = err.Error()
			}
		})
	}
	wg.Wait()
	var all []silence
	for i, problem := range problems {
		if problem != "" {
			all = append(all, silence{servers[i].Name, problem})
		}
	}
	return all
}
