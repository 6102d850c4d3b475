import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

// One file with everything in it: the image needs node and dist, no node_modules.
export default defineConfig({
  plugins: [vue()],
  ssr: { noExternal: true },
  define: { 'process.env.NODE_ENV': JSON.stringify('production') },
  build: {
    ssr: 'src/server.ts',
    target: 'node18',
    outDir: 'dist',
    rollupOptions: { output: { entryFileNames: 'server.js' } },
  },
})
