import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` serves the pages with hot reload and passes /api on to a running `opsloop up`.
const server = 'http://127.0.0.1:4318';

export default defineConfig({
  plugins: [svelte({ compilerOptions: { runes: true } })],
  build: { target: 'es2023', assetsInlineLimit: 0, chunkSizeWarningLimit: 400 },
  server: { proxy: { '/api': server } },
});
