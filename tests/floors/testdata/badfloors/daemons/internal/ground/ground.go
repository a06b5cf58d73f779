package ground

import _ "bad/daemons/internal/service"
