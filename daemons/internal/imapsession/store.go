package imapsession

// Store is the message store: *mailstore.Store.
type Store interface{}
