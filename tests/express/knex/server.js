'use strict';

const { ConnectSessionKnexStore } = require('connect-session-knex');
const makeKnex = require('knex');

async function openStore(options) {
  const knex = makeKnex({ client: 'pg', connection: options.connection, pool: { min: 0, max: 10 } });
  const store = new ConnectSessionKnexStore({ knex, ...options.store });
  await store.ready;
  return store;
}

require('../site').serve(openStore);
