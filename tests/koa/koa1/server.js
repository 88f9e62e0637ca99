'use strict';

// Koa 1, as in the readme of koa-pg-session: generators all the way down, and
// a store that makes its own pool.

const Keygrip = require('keygrip');
const koa = require('koa');
const session = require('koa-generic-session');
const PgStore = require('koa-pg-session');
const host = require('../host');
const page = require('../page');

async function open(options) {
  const store = new PgStore(options.connection, options.store);
  await store.setup();

  const app = koa();
  app.keys = options.algorithm ? new Keygrip(options.keys, options.algorithm) : options.keys;
  app.proxy = true;
  app.silent = true;
  app.on('error', () => {});
  app.use(session(Object.assign({ store }, options.session)));
  app.use(function *() { yield* page(this); });
  return host.listen(app);
}

host.serve(open);
