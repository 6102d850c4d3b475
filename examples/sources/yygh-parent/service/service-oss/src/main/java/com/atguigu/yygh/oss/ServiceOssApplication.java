package com.atguigu.yygh.oss;

import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** Files. */
@SpringBootApplication
public class ServiceOssApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceOssApplication.class, args);
    }
}
