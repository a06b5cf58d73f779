package service

import (
	_ "fmt"

	_ "bad/daemons/internal/other"
	_ "bad/daemons/internal/stranger"
)
