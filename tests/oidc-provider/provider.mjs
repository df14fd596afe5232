// oidc-provider for the tests: node provider.mjs MODULES PORT CHAIN KEY MODE EMAIL SECRET
// Prints "up" once it listens, then the path of each request.
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, port, chain, key, mode, email, secret] = process.argv.slice(2);
const entry = path.join(modules, 'node_modules/oidc-provider/lib/index.js');
const { Provider, interactionPolicy } = await import(pathToFileURL(entry).href);

const configuration = {
  clients: [{
    client_id: 'restante',
    client_secret: secret,
    // Native clients of loopback may have any port (RFC 8252 section 7.3).
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/login/oidc/callback'],
  }],
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['given_name', 'family_name'],
  },
  features: { claimsParameter: { enabled: mode === 'claims' } },
  findAccount: (_, id) => ({
    accountId: id,
    claims: (use) => ({
      sub: mode === 'swapped' && use === 'userinfo' ? 'another' : id,
      email,
      email_verified: true,
      given_name: 'Ada',
      family_name: 'Reader',
    }),
  }),
};

if (mode === 'choosing') {
  const policy = interactionPolicy.base();
  policy.add(new interactionPolicy.Prompt({ name: 'select_account', requestable: true }), 0);
  configuration.interactions = { policy };
  configuration.features.devInteractions = { enabled: false };
  configuration.loadExistingGrant = async (ctx) => {
    const { client, session, provider } = ctx.oidc;
    const grant = new provider.Grant({ accountId: session.accountId, clientId: client.clientId });
    grant.addOIDCScope('openid email profile');
    await grant.save();
    return grant;
  };
}

const provider = new Provider(`https://127.0.0.1:${port}`, configuration);

if (mode === 'choosing') {
  provider.use(async (ctx, next) => {
    if (!ctx.path.startsWith('/interaction/')) return next();
    const { prompt } = await provider.interactionDetails(ctx.req, ctx.res);
    if (ctx.method === 'POST') {
      const result = prompt.name === 'login' ? { login: { accountId: 'ada' } } : { [prompt.name]: {} };
      ctx.respond = false;
      return provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
    }
    ctx.type = 'html';
    ctx.body = `<!DOCTYPE html><title>Provider</title><main><h1>Provider asks: ${prompt.name}</h1>
      <form method="post"><button>Go on</button></form></main>`;
  });
}

provider.use(async (ctx, next) => {
  console.log(ctx.path);
  return next();
});

const tls = { cert: fs.readFileSync(chain), key: fs.readFileSync(key) };
https.createServer(tls, provider.callback()).listen(Number(port), '127.0.0.1', () => console.log('up'));
