'use strict';

// Koa 2, with async functions.

const co = require('co');
const Koa = require('koa');
const Keygrip = require('keygrip');
const session = require('koa-generic-session');
const host = require('../../node/host');
const openStore = require('./store');
const page = require('../page');

async function open(options) {
  const store = await openStore(options.connection, options.store);

  const app = new Koa();
  app.keys = options.algorithm ? new Keygrip(options.keys, options.algorithm) : options.keys;
  app.proxy = true;
  app.silent = true;
  app.use(session(Object.assign({ store }, options.session)));
  app.use((ctx) => co(page(ctx)));
  return host.listen(app);
}

host.serve(open);
