'use strict';

// Koa 1, as in the readme of koa-pg-session: generators all the way down, and
// a store that makes its own pool.

const Keygrip = require('keygrip');
const koa = require('koa');
const session = require('koa-generic-session');
const PgStore = require('koa-pg-session');
const host = require('../../node/host');
const page = require('../page');

let sites = 0;

async function open(options) {
  // This pg has one pool for all equal connections, but each site is to be as
  // if it were a process of its own.
  sites += 1;
  const connection = Object.assign({ application_name: `site ${sites}` }, options.connection);
  const store = new PgStore(connection, options.store);
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
