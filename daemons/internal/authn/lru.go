package authn

import "container/list"

// lru is a map of bounded size; what was not used for the longest time leaves first. Its user locks it.
type lru[K comparable, V any] struct {
	max   int
	items map[K]*list.Element
	order *list.List // of *pair, front: used last
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{max: max(size, 1), items: map[K]*list.Element{}, order: list.New()}
}

// get returns the value of key and marks it as used.
func (l *lru[K, V]) get(key K) (v V, ok bool) {
	el := l.items[key]
	if el == nil {
		return v, false
	}
	l.order.MoveToFront(el)
	return el.Value.(*pair[K, V]).value, true
}

// put sets the value of key.
func (l *lru[K, V]) put(key K, v V) {
	if el := l.items[key]; el != nil {
		el.Value.(*pair[K, V]).value = v
		l.order.MoveToFront(el)
		return
	}
	l.items[key] = l.order.PushFront(&pair[K, V]{key, v})
	for len(l.items) > l.max {
		l.drop(l.order.Back())
	}
}

// remove forgets key.
func (l *lru[K, V]) remove(key K) {
	if el := l.items[key]; el != nil {
		l.drop(el)
	}
}

func (l *lru[K, V]) drop(el *list.Element) {
	l.order.Remove(el)
	delete(l.items, el.Value.(*pair[K, V]).key)
}

func (l *lru[K, V]) clear() {
	clear(l.items)
	l.order.Init()
}

func (l *lru[K, V]) len() int { return len(l.items) }
