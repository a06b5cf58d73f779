package other

import _ "bad/daemons/internal/service"
