'use strict';

require('../site').serve(require('../pg_store'));
