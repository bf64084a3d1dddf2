// The API's description, by Swagger UI, which is loaded when it is first asked for.

import { authorization } from "../api.js";
import { $, h } from "../dom.js";

const FOLDER = "console/static/swagger-ui";
let shown = false;

export function showApi() {
  if (shown) return;
  shown = true;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", follow);
  follow();
  document.head.append(h("link", { rel: "stylesheet", href: `${FOLDER}/swagger-ui.css` }));
  const script = h("script", { src: `${FOLDER}/swagger-ui-bundle.js` });
  script.addEventListener("load", () =>
    window.SwaggerUIBundle({
      url: "openapi.json",
      domNode: $("viewer"),
      validatorUrl: null,
      onComplete: nest,
      deepLinking: false,
      docExpansion: "list",
      defaultModelsExpandDepth: 0,
      requestInterceptor: (request) => ({ ...request, headers: { ...authorization(), ...request.headers } }),
    }),
  );
  document.head.append(script);
}

/** The viewer is part of a page that has a main element already. */
function nest() {
  for (const main of $("viewer").querySelectorAll("main")) main.setAttribute("role", "group");
}
