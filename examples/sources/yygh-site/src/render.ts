import { createSSRApp, h, type Component } from 'vue'
import { renderToString } from 'vue/server-renderer'
import Layout from './Layout.vue'
import ProblemPage from './pages/ProblemPage.vue'
import type { Reply } from './routes'
import style from './style.css?raw'

export async function page(title: string, content: Component, props: Record<string, unknown>): Promise<Reply> {
  return { status: 200, body: await html(title, content, props) }
}

export function problemPage(status: number, message: string): Promise<string> {
  return html('出错了', ProblemPage, { status, message })
}

async function html(title: string, content: Component, props: Record<string, unknown>): Promise<string> {
  const app = createSSRApp({ render: () => h(Layout, null, { default: () => h(content, props) }) })
  const body = await renderToString(app)
  return `<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escape(title)} · 尚医通</title>
<style>${style}</style>
</head>
<body>${body}</body>
</html>
`
}

function escape(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;')
}
