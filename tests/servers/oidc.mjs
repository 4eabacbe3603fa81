// What tests/servers/oidc.py starts: oidc-provider as it is, with a sign-in that takes any name.

import { createServer } from "node:http";

const wish = JSON.parse(process.env.OIDC_WISH);
const { default: Provider } = await import(wish.package);

const accountOf = (name) => ({
  sub: name.toLowerCase(),
  name,
  email: `${name.toLowerCase()}@example.org`,
  email_verified: true,
  ...wish.accounts[name],
});

// Two names may be one account: then it has the claims of the last.
const accounts = new Map();
const signIn = (name) => {
  const account = accountOf(name);
  accounts.set(account.sub, account);
  return account.sub;
};

const findAccount = (_, sub) => accounts.has(sub) && { accountId: sub, claims: () => accounts.get(sub) };

// Who signs in gives the client what it asks for: there is no page that asks.
const loadExistingGrant = async ({ oidc }) => {
  const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
  grant.addOIDCScope([...oidc.requestParamScopes].join(" "));
  grant.addOIDCClaims([...oidc.requestParamClaims]);
  await grant.save();
  return grant;
};

const provider = new Provider(wish.issuer, {
  clients: [{ client_id: wish.id, client_secret: wish.secret, redirect_uris: wish.redirects }],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  pkce: { required: () => true },
  cookies: { keys: [wish.cookies] },
  features: { devInteractions: { enabled: false } },
  findAccount,
  loadExistingGrant,
});

const page = (name) => `<!doctype html>
<html lang="en">
  <head><meta charset="utf-8"><title>Who are you?</title><link rel="icon" href="data:,"></head>
  <body>
    <main>
      <h1>Who are you?</h1>
      <form method="post">
        <label>Name <input name="name" value="${name.replace(/[^\w.@-]/g, "")}" required></label>
        <button>Sign in</button>
        <button name="refuse" value="yes" formnovalidate>Refuse</button>
      </form>
    </main>
  </body>
</html>`;

const bodyOf = async (request) => {
  let text = "";
  for await (const part of request) text += part;
  return new URLSearchParams(text);
};

const interact = async (request, response) => {
  const { params } = await provider.interactionDetails(request, response);
  if (request.method !== "POST") {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page(params.login_hint ?? ""));
    return;
  }
  const form = await bodyOf(request);
  const refused = { error: "access_denied", error_description: "They would not sign in" };
  const result = form.has("refuse") ? refused : { login: { accountId: signIn(form.get("name")) } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
};

const answer = provider.callback();
createServer(async (request, response) => {
  try {
    if (request.url.startsWith("/interaction/")) await interact(request, response);
    else await answer(request, response);
  } catch (error) {
    console.error(error);
    response.writeHead(400, { "content-type": "text/plain" }).end(String(error));
  }
}).listen(wish.port, "127.0.0.1");
