// Swagger UI renders the OpenAPI document; "Try it out" sends requests to this server.
// @ts-expect-error a global that the bundle defines
SwaggerUIBundle({ url: 'openapi.json', dom_id: '#api', deepLinking: true, validatorUrl: null });
