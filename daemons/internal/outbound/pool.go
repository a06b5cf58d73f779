package outbound

// take gives an unused connection to a destination; nil when there is none.
func (c *Client) take(key string) *conn {
	now := c.o.Clock.Boot()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := len(c.idle[key]); n > 0; n = len(c.idle[key]) {
		x := c.idle[key][n-1]
		c.idle[key][n-1] = nil
		if c.idle[key] = c.idle[key][:n-1]; n == 1 {
			delete(c.idle, key)
		}
		if now-x.used <= c.s.IdleTimeout && now-x.born <= c.s.MaxAge {
			x.reused = true
			return x
		}
		go x.close()
	}
	return nil
}

// put keeps a connection that is in no transaction, or closes it.
func (c *Client) put(x *conn) {
	x.used = c.o.Clock.Boot()
	c.mu.Lock()
	keep := !c.closed && len(c.idle[x.key]) < c.s.MaxIdle && x.uses < c.s.MaxUses && x.used-x.born < c.s.MaxAge
	if keep {
		c.idle[x.key] = append(c.idle[x.key], x)
		if c.reaper == nil {
			c.reaper = c.o.Clock.AfterFunc(c.s.IdleTimeout, c.reap)
		}
	}
	c.mu.Unlock()
	if !keep {
		x.close()
	}
}

// reap closes what nobody used for IdleTimeout.
func (c *Client) reap() {
	var old []*conn
	now := c.o.Clock.Boot()
	c.mu.Lock()
	for key, list := range c.idle {
		n := 0
		for n < len(list) && now-list[n].used >= c.s.IdleTimeout {
			n++
		}
		old = append(old, list[:n]...)
		if c.idle[key] = append([]*conn(nil), list[n:]...); n == len(list) {
			delete(c.idle, key)
		}
	}
	c.reaper = nil
	if len(c.idle) > 0 && !c.closed {
		c.reaper = c.o.Clock.AfterFunc(c.s.IdleTimeout, c.reap)
	}
	c.mu.Unlock()
	for _, x := range old {
		x.close()
	}
}

// Close closes the connections that are not in use. Those in use end with their messages.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	var all []*conn
	for _, list := range c.idle {
		all = append(all, list...)
	}
	clear(c.idle)
	if c.reaper != nil {
		c.reaper.Stop()
		c.reaper = nil
	}
	c.mu.Unlock()
	for _, x := range all {
		x.close()
	}
	return nil
}
