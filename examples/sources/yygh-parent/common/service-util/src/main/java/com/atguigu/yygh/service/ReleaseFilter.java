package com.atguigu.yygh.service;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import org.springframework.web.filter.OncePerRequestFilter;

/** Names the release in every response. */
class ReleaseFilter extends OncePerRequestFilter {

    private final Release release;

    ReleaseFilter(Release release) {
        this.release = release;
    }

    @Override
    protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws ServletException, IOException {
        response.setHeader("X-Service", release.service());
        response.setHeader("X-Version", release.version());
        response.setHeader("X-Pod", release.pod());
        chain.doFilter(request, response);
    }
}
