package com.atguigu.yygh.service;

/**
 * What is running: sent as response headers, so that whoever polls a service sees a roll-out happen.
 *
 * @param version the image tag, {@code TAG}
 * @param run the number of the pipeline run that built it, {@code RUN}
 */
public record Release(String service, String version, String run, String pod) {
}
