import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

// BASE_API is the gateway as browsers see it, http://NODE:32607. Without it the page asks its own origin, and nginx
// passes /api on to the gateway: then one build serves every address.
const baseApi = (process.env.BASE_API ?? '').replace(/\/+$/, '')

export default defineConfig({
  plugins: [vue()],
  define: { __BASE_API__: JSON.stringify(baseApi) },
  server: { proxy: { '/api': process.env.GATEWAY ?? 'http://127.0.0.1:8200' } },
})
