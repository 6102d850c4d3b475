// An OpenID provider with one client; everybody may sign in, and a JSON file says who is in which groups.
import { readFileSync } from "node:fs";
import Provider from "oidc-provider";

const [port, redirect, groups] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: "pipe", client_secret: "top secret", redirect_uris: [redirect] }],
  claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
  scopes: ["openid", "profile", "groups"],
  pkce: { required: () => true },
  cookies: { keys: ["of a sandbox"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: JSON.parse(readFileSync(groups, "utf8"))[id] ?? [] }),
  }),
});
provider.listen(Number(port), "127.0.0.1");
