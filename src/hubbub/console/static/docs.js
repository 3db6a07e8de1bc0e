"use strict";
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null, docExpansion: "list", onComplete: nameServers });

// Swagger UI's own choice of the server has no name for a screen reader.
function nameServers() {
  document.getElementById("servers")?.setAttribute("aria-label", "Server");
}
