import { authorization } from './key.js';

// Swagger UI's dark mode is a class.
const dark = matchMedia('(prefers-color-scheme: dark)');
const followSystem = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', followSystem);
followSystem();

// Swagger UI renders the OpenAPI document; "Try it out" sends requests to this server.
// @ts-expect-error a global that the bundle defines
const ui = SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#api',
  deepLinking: true,
  validatorUrl: null,
  defaultModelsExpandDepth: -1,
  tryItOutEnabled: true,
  // The key that the reader has entered on another page.
  onComplete: () => {
    const key = authorization().authorization?.replace('Bearer ', '');
    if (key) ui.preauthorizeApiKey('key', key);
  },
});
