package com.atguigu.yygh.cmn;

import com.atguigu.yygh.service.YyghService;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/** The data dictionary. */
@SpringBootApplication
public class ServiceCmnApplication {

    public static void main(String[] args) {
        YyghService.run(ServiceCmnApplication.class, args);
    }
}
